"""The command `coe certify`: proves by exact tests that a cheaper plan is good enough, or says what is missing."""
