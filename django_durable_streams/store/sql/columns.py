"""The columns of the tables in the order in which statements write them, with their types in PostgreSQL's names.

Only PostgreSQL's statements use the types.
"""

STREAM_COLUMNS = {
    "path": "text",
    "content_type": "text",
    "generation": "bigint",
    "tail": "bigint",
    "first_position": "bigint",
    "closed": "boolean",
    "closed_by": "text",
    "last_seq": "text",
    "ttl": "bigint",
    "expires_at": "bigint",
    "deadline": "bigint",
    "source_id": "bigint",
    "fork_position": "bigint",
    "inherited_from": "bigint",
    "lineage": "jsonb",
    "link_state": "smallint",
    "created_at": "timestamptz",
    "appended_at": "timestamptz",
}
CHUNK_COLUMNS = {
    "stream_id": "bigint",
    "start": "bigint",
    "end": "bigint",
    "data": "bytea",
    "ends": "bytea",
    "created_at": "timestamptz",
}
READ_CHUNK_COLUMNS = [*CHUNK_COLUMNS][:5]
PRODUCER_COLUMNS = {
    "stream_id": "bigint",
    "producer_id": "text",
    "epoch": "bigint",
    "seq": "bigint",
    "updated_at": "timestamptz",
}
RETENTION_COLUMNS = {
    "stream_id": "bigint",
    "is_explicit": "boolean",
    "age": "bigint",
    "max_bytes": "bigint",
    "max_messages": "bigint",
    "marks": "jsonb",
    "trim_position": "bigint",
}
LINK_COLUMNS = {
    "subscription_id": "bigint",
    "path": "text",
    "stream_id": "bigint",
    "is_explicit": "boolean",
    "is_glob": "boolean",
    "acked_position": "bigint",
    "is_pending": "boolean",
}
REGISTRY_COLUMNS = {
    "message": "text",
}
UPDATED_STREAM_COLUMNS = {
    "tail": "bigint",
    "closed": "boolean",
    "closed_by": "text",
    "last_seq": "text",
    "deadline": "bigint",
    "link_state": "smallint",
    "appended_at": "timestamptz",
    "id": "bigint",
}
GROWN_STREAM_COLUMNS = {
    "tail": "bigint",  # the bytes by which it moves
    "appended_at": "timestamptz",
    "path": "text",
    "generation": "bigint",
    "id": "bigint",
}
UPDATED_PRODUCER_COLUMNS = {
    "epoch": "bigint",
    "seq": "bigint",
    "updated_at": "timestamptz",
    "stream_id": "bigint",
    "producer_id": "text",
}
