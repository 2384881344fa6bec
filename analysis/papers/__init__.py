"""The published papers' own tables and figures, from any study that holds the needed trials."""
