"""What a problem becomes, and what solving it means: system, operators, verification, Newton."""
