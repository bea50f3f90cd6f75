"""4-bit (NF4) linear layers that are as fast as 16-bit ones on a GPU: see `linear.NF4Linear`."""
