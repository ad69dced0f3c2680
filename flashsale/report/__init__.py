"""A page for the people who ran a sale: its figures, its charts, and the page itself."""
