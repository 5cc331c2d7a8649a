"""How pages look: templates, the style sheet, scripts, and the functions that templates use."""
