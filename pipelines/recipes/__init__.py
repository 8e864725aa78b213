"""The recipes that come with Headrace."""
