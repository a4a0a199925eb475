"""Jobs as rows of a database: submitted, claimed under leases, taken in turns, limited per owner."""
