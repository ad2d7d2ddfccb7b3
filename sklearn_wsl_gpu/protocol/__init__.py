"""What is said between client and worker: messages, codec, state tables, version. No sockets."""
