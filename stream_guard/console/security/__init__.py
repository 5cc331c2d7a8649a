"""Who may do what in the console: roles, sessions, sign-in, and the checks of a request."""
