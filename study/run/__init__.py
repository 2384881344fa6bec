"""One trial: its processes, its energy, what it rests on."""
