"""What an evaluation leaves behind for people: a page, sheets, files of numbers."""
