"""One paper, one file. The file name is the method's name; there is no list to edit."""
