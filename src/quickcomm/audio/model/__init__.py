"""The pure part of audio: states, positions, codecs, segmentation. No I/O, no clock."""
