"""What authors work on: the folder of policies, as pages show and change it. No HTML here."""
