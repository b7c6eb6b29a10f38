"""Models of requests and responses.

`contract_id` in JSON is the id of an embedding space, `space_id` in the code.
"""
