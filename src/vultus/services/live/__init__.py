"""Live recognition: tracks through a video, who they are, and what is told of them."""
