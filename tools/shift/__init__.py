"""Makes the demo shift: script of lines → voices → radio → FLAC and labels. No part of the wheel."""
