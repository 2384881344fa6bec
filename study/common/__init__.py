"""What everything else uses: errors, checks of arguments, files, JSON, the terminal, the process, the machine."""
