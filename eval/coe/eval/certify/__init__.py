"""`coe certify`: shows with exact tests that a cheaper plan of a policy is good enough, or says what is missing."""
