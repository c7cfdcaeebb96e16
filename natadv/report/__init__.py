"""What a person reads: the table, the failing pictures, the Allure results. Values in, text out."""
