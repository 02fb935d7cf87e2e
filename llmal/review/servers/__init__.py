"""review.servers: labelling tools that run as a server, each as what llmal pushes to it and pulls from it."""
