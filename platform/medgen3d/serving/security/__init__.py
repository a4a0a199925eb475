"""Who may call, what callers sent, and the log of both."""
