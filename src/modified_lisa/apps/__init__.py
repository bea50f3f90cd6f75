"""What people run: the ``modified-lisa`` command."""
