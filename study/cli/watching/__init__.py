"""What `watch` serves, and how."""
