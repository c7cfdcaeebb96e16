"""What the pytest hooks delegate to: options, a process's session, the controller, the gates."""
