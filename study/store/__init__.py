"""What is kept of a study: records, trial folders, the ledger, locks, costs, and what readers make of them."""
