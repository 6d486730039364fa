"""x"""
PRIOR = bytes([128]) * 1293
