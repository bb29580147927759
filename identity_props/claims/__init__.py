"""Who learns the identity and who does not: claims over seeds, judged by exact tests."""
