"""What a program outside Headrace includes or imports; each file stands alone and may be copied."""
