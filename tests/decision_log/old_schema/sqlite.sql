-- Made by the last version without Alembic.
CREATE TABLE access_keys (
    key_id TEXT NOT NULL,
    name TEXT NOT NULL,
    grant_json TEXT NOT NULL,
    digest BLOB NOT NULL,
    old_digest BLOB,
    old_until FLOAT,
    created_at FLOAT NOT NULL,
    revoked_at FLOAT,
    PRIMARY KEY (key_id),
    UNIQUE (digest)
);
CREATE TABLE access_log (
    number INTEGER NOT NULL,
    at FLOAT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    "before" TEXT NOT NULL,
    "after" TEXT NOT NULL,
    link TEXT NOT NULL,
    PRIMARY KEY (number)
);
CREATE TABLE access_teams (
    team TEXT NOT NULL,
    grant_json TEXT NOT NULL,
    PRIMARY KEY (team)
);
CREATE TABLE batch_results (
    batch_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    is_error BOOLEAN NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (batch_id, number)
);
CREATE TABLE batches (
    batch_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    metadata_json TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    expires_at FLOAT NOT NULL,
    key_id TEXT,
    status TEXT NOT NULL,
    in_progress_at FLOAT,
    cancelling_at FLOAT,
    ended_at FLOAT,
    total INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    output_file_id TEXT,
    error_file_id TEXT,
    problem TEXT,
    runner TEXT,
    claimed_until FLOAT NOT NULL,
    PRIMARY KEY (batch_id)
);
CREATE INDEX batches_owner ON batches (owner, created_at);
CREATE INDEX batches_status ON batches (status);
CREATE TABLE decisions (
    decision_id TEXT NOT NULL,
    at FLOAT NOT NULL,
    replica TEXT NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL,
    expert TEXT,
    category TEXT,
    reason TEXT,
    router_version TEXT,
    policy TEXT,
    is_fallback BOOLEAN,
    is_probe BOOLEAN NOT NULL,
    tenant TEXT NOT NULL,
    record TEXT NOT NULL,
    session_id TEXT,
    text_hash TEXT,
    embedding BLOB,
    encoder_fingerprint TEXT,
    PRIMARY KEY (decision_id)
);
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_session ON decisions (session_id, at);
CREATE INDEX decisions_tenant ON decisions (tenant, at, expert, category, state, router_version, policy, is_fallback, is_probe);
CREATE TABLE document_feedback (
    id INTEGER NOT NULL,
    decision_id TEXT NOT NULL,
    document_id TEXT NOT NULL,
    value FLOAT NOT NULL,
    at FLOAT NOT NULL,
    key_id TEXT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (decision_id, document_id, key_id)
);
CREATE INDEX document_feedback_key ON document_feedback (key_id, at);
CREATE TABLE erasures (
    subject TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (subject)
);
CREATE TABLE feedback (
    id INTEGER NOT NULL,
    decision_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    value FLOAT NOT NULL,
    at FLOAT NOT NULL,
    key_id TEXT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (decision_id, kind, key_id)
);
CREATE INDEX feedback_key ON feedback (key_id, at);
CREATE INDEX feedback_value ON feedback (value);
CREATE TABLE judgements (
    decision_id TEXT NOT NULL,
    judge TEXT NOT NULL,
    rubric TEXT NOT NULL,
    expert TEXT NOT NULL,
    other TEXT NOT NULL,
    value FLOAT NOT NULL,
    is_consistent BOOLEAN,
    at FLOAT NOT NULL,
    PRIMARY KEY (decision_id, judge, rubric, expert, other)
);
CREATE TABLE removed (
    replica TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (replica, first_seq, last_seq)
);
CREATE TABLE replicas (
    replica TEXT NOT NULL,
    decisions INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    state TEXT NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (replica)
);
CREATE TABLE retrain_turns (
    number INTEGER NOT NULL,
    until FLOAT NOT NULL,
    PRIMARY KEY (number)
);
CREATE TABLE retrieval_chunks (
    "key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    store_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX retrieval_chunks_file ON retrieval_chunks (store_id, file_id, position);
CREATE TABLE retrieval_file_parts (
    file_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (file_id, number)
);
CREATE TABLE retrieval_files (
    file_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (file_id)
);
CREATE INDEX retrieval_files_owner ON retrieval_files (owner, created_at);
CREATE TABLE retrieval_indexes (
    index_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL,
    version INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    vectors INTEGER NOT NULL,
    UNIQUE (name)
);
CREATE TABLE retrieval_vectors (
    "key" INTEGER NOT NULL,
    index_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY ("key", index_id)
);
CREATE INDEX retrieval_vectors_version ON retrieval_vectors (index_id, version, "key");
CREATE TABLE router_events (
    at FLOAT NOT NULL,
    version TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (at, version, event)
);
CREATE TABLE spend (
    slot INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    decisions INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cost_usd FLOAT NOT NULL,
    PRIMARY KEY (slot, key_id)
);
CREATE TABLE vector_store_batches (
    batch_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (batch_id)
);
CREATE INDEX vector_store_batches_store ON vector_store_batches (store_id);
CREATE TABLE vector_store_files (
    store_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    status TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    attributes_json TEXT NOT NULL,
    strategy_json TEXT NOT NULL,
    batch_id TEXT,
    usage_bytes INTEGER NOT NULL,
    created_at FLOAT NOT NULL,
    claimed_until FLOAT,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (store_id, file_id)
);
CREATE INDEX vector_store_files_file ON vector_store_files (file_id);
CREATE INDEX vector_store_files_status ON vector_store_files (status);
CREATE TABLE vector_stores (
    store_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    metadata_json TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    last_active_at FLOAT NOT NULL,
    expires_days INTEGER,
    space TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (store_id)
);
CREATE INDEX vector_stores_owner ON vector_stores (owner, created_at);
