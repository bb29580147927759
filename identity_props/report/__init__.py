"""What was found, for people and for programs: tables, documents, pictures, one page."""
