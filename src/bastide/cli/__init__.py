"""The command line `bastide`: parsing and printing only; everything else is the daemon's."""
