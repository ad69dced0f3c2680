"""The numbered migrations that peewee-migrate runs; ``flashsale migrate`` is the way to run them."""
