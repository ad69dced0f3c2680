"""The numbered migrations that peewee-migrate runs, by ``flashsale migrate``."""
