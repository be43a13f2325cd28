BEGIN TRANSACTION;
CREATE TABLE coe_schema (
	version INTEGER NOT NULL,
	PRIMARY KEY (version)
);
INSERT INTO "coe_schema" VALUES(1);
CREATE TABLE decisions (
	decision_id TEXT NOT NULL,
	at FLOAT NOT NULL,
	replica TEXT NOT NULL,
	seq INTEGER NOT NULL,
	state TEXT NOT NULL,
	expert TEXT,
	category TEXT,
	router_version TEXT,
	record TEXT NOT NULL,
	session_id TEXT,
	text_hash TEXT,
	embedding BLOB,
	encoder_fingerprint TEXT,
	PRIMARY KEY (decision_id)
);
INSERT INTO "decisions" VALUES('dec-96f6e429ddc6b4ab294014ee',1.79589990248549604e+09,'gateway-1-b01794',0,'answered','left','facts','046a325cef6ba913','{"schema_version":1,"kind":"chat","decision_id":"dec-96f6e429ddc6b4ab294014ee","request_id":"req-d2aa8a9866daf57ac457d645","replica":"gateway-1-b01794","seq":0,"at":1795899902.485496,"requested_model":"auto","state":"answered","decision":{"expert":"left","category":"facts","confidence":0.7950747013092041,"is_fallback":false,"reason":"map","likely_category":"facts","uncertainty":0.7316700220108032,"runner_up":"right","ranking":["left","right"],"eligible":["left","right"],"eligible_probs":[1.0,0.0],"predicted_quality":[0.6000000238418579,0.4000000059604645],"excluded":{},"outside_policy":{},"excluded_quality":[],"predicted_cost_usd":[0.0,0.0],"predicted_wait_ms":[null,null],"category_probs":{"facts":0.7950747013092041,"sql":0.20492534339427948},"threshold":0.9999989867210388,"seed":null,"propensity":1.0,"policy":"default","router_version":"046a325cef6ba913"},"served_expert":"left","status":200,"error_code":null,"finish_reason":"stop","is_stream":false,"usage":{"prompt_tokens":5,"completion_tokens":5,"is_estimated":false},"cost_usd":0.0,"ttft_ms":1.8748920010693837,"latency_ms":2.1910529994784156,"overhead_ms":1.3832199983880855,"session_id":"7caf73b1a9a6ef38","key_id":null,"language":null,"is_probe":false,"turns":1,"prompt_chars":15,"text":null,"text_hash":"ceb495b9697e6bb1b016ac4247cfa61af711173f21eede65ae7ddfe40c492711","inputs":{"encoder":"c34ae0073907c274c93cb198135fc559","features":"ce440e5cd2eb2e5e33eb8eb6","settings":"9f36aee63986e3f8","facts":{"turns":1,"has_image":false,"has_tools":false,"wants_json":false,"wants_logprobs":false,"prompt_chars":15,"max_output_tokens":24},"unreachable":[]},"embedding":null,"retrieval":null,"shadow":null}','7caf73b1a9a6ef38','ceb495b9697e6bb1b016ac4247cfa61af711173f21eede65ae7ddfe40c492711',X'000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000B4000000000000000000000000000000000000000000000000003400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000003400000000000000000000000000B400000000000000000000000000000034000000000000000000000000000000000000000000B40000000000000000000000340000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000B400000000003400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000B400000000000000000000000000000000000000340000000000000000000000B4000000000000000000000000000000000000003400340000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000B40000000000B40000000000000000','c34ae0073907c274c93cb198135fc559');
INSERT INTO "decisions" VALUES('dec-b92e77083a53fd321ba224a6',1.79589990248973131e+09,'gateway-1-b01794',1,'answered','left','sql','046a325cef6ba913','{"schema_version":1,"kind":"chat","decision_id":"dec-b92e77083a53fd321ba224a6","request_id":"req-1f851dca275d3f31ac65f4ca","replica":"gateway-1-b01794","seq":1,"at":1795899902.4897313,"requested_model":"auto","state":"answered","decision":{"expert":"left","category":"sql","confidence":0.9015976786613464,"is_fallback":false,"reason":"map","likely_category":"sql","uncertainty":0.46391063928604126,"runner_up":"right","ranking":["left","right"],"eligible":["left","right"],"eligible_probs":[1.0,0.0],"predicted_quality":[0.6000000238418579,0.4000000059604645],"excluded":{},"outside_policy":{},"excluded_quality":[],"predicted_cost_usd":[0.0,0.0],"predicted_wait_ms":[null,null],"category_probs":{"sql":0.9015976786613464,"facts":0.09840238094329834},"threshold":0.9999989867210388,"seed":null,"propensity":1.0,"policy":"default","router_version":"046a325cef6ba913"},"served_expert":"left","status":200,"error_code":null,"finish_reason":"stop","is_stream":false,"usage":{"prompt_tokens":8,"completion_tokens":8,"is_estimated":false},"cost_usd":0.0,"ttft_ms":6.262705999688478,"latency_ms":24.948239000877948,"overhead_ms":5.8358329988550395,"session_id":"1877c9ba98522240","key_id":null,"language":null,"is_probe":false,"turns":1,"prompt_chars":45,"text":null,"text_hash":"989deb955eb9cf72287cc84a99dc6cc0bb5b68304f2f6727b69e2a5a991b9a49","inputs":{"encoder":"c34ae0073907c274c93cb198135fc559","features":"a917f4c0478fbfe225912a0c","settings":"9f36aee63986e3f8","facts":{"turns":1,"has_image":false,"has_tools":false,"wants_json":false,"wants_logprobs":false,"prompt_chars":45,"max_output_tokens":24},"unreachable":[]},"embedding":null,"retrieval":null,"shadow":null}','1877c9ba98522240','989deb955eb9cf72287cc84a99dc6cc0bb5b68304f2f6727b69e2a5a991b9a49',X'0000703400000000000000000000000000000000000000000000000070300000000000000000000000000000000070300000000000000000000000000000000070B00000000000000000000000000000703400000000703400000000000000000000000000000000000000007030000000000000000070B400000000000000000000000070B0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000070B000000000000070B070B00000000000000000000070B000000000000070307030703000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000703000000000000070B000000000000070B0000000000000000070340000000070B0000000007030000070300000000000000000000000000000000000000000000000000000000070340000000000000000000000000000000000000000000000000000000070B00000703000000000000000000000000000007030000000000000000070B070B0000000000000000000000000000000000000000000000000000070B000000000000070300000000070B000000000000000000000000000000000000000000000000000007030000000000000000000000000000070B0000000000000000000000000000000000000000000000000000000000000','c34ae0073907c274c93cb198135fc559');
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
INSERT INTO "feedback" VALUES(1,'dec-96f6e429ddc6b4ab294014ee','score',0.0,1.79589990294690704e+09,'');
INSERT INTO "feedback" VALUES(2,'dec-b92e77083a53fd321ba224a6','thumb',1.0,1.79589990300302624e+09,'');
CREATE TABLE implicit_signals (
	decision_id TEXT NOT NULL,
	kind TEXT NOT NULL,
	at FLOAT NOT NULL,
	PRIMARY KEY (decision_id, kind)
);
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
INSERT INTO "replicas" VALUES('gateway-1-b01794',2,2,'ended',1.79589992535555148e+09);
CREATE TABLE retrieval_chunks (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	store_id TEXT NOT NULL,
	file_id TEXT NOT NULL,
	position INTEGER NOT NULL,
	text TEXT NOT NULL
);
INSERT INTO "retrieval_chunks" VALUES(1,'vs_f683a8f7534086f5888730cc','file-b92700af42f642af42cf71d8',0,'The harbour office opens at nine. The lighthouse keeper is called Ines.
The harbour office opens at nine. The lighthouse keeper is called Ines.
The harbour office opens at nine. The lighthouse keeper is called Ines.
The harbour office opens at nine. The lighthouse keeper is called Ines.');
CREATE TABLE retrieval_file_parts (
	file_id TEXT NOT NULL,
	number INTEGER NOT NULL,
	content BLOB NOT NULL,
	PRIMARY KEY (file_id, number)
);
INSERT INTO "retrieval_file_parts" VALUES('file-b92700af42f642af42cf71d8',0,X'54686520686172626F7572206F6666696365206F70656E73206174206E696E652E20546865206C69676874686F757365206B65657065722069732063616C6C656420496E65732E0A54686520686172626F7572206F6666696365206F70656E73206174206E696E652E20546865206C69676874686F757365206B65657065722069732063616C6C656420496E65732E0A54686520686172626F7572206F6666696365206F70656E73206174206E696E652E20546865206C69676874686F757365206B65657065722069732063616C6C656420496E65732E0A54686520686172626F7572206F6666696365206F70656E73206174206E696E652E20546865206C69676874686F757365206B65657065722069732063616C6C656420496E65732E0A');
CREATE TABLE retrieval_files (
	file_id TEXT NOT NULL,
	owner TEXT NOT NULL,
	filename TEXT NOT NULL,
	purpose TEXT NOT NULL,
	size_bytes INTEGER NOT NULL,
	created_at FLOAT NOT NULL,
	PRIMARY KEY (file_id)
);
INSERT INTO "retrieval_files" VALUES('file-b92700af42f642af42cf71d8','','notes.txt','assistants',288,1.7958999032838335e+09);
CREATE TABLE router_events (
	at FLOAT NOT NULL,
	version TEXT NOT NULL,
	event TEXT NOT NULL,
	detail TEXT NOT NULL,
	PRIMARY KEY (at, version, event)
);
INSERT INTO "router_events" VALUES(1767225600.0,'046a325cef6ba913','promoted','');
CREATE TABLE router_versions (
	version TEXT NOT NULL,
	created_at TEXT NOT NULL,
	manifest TEXT NOT NULL,
	PRIMARY KEY (version)
);
CREATE TABLE vector_store_batches (
	batch_id TEXT NOT NULL,
	store_id TEXT NOT NULL,
	created_at FLOAT NOT NULL,
	PRIMARY KEY (batch_id)
);
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
INSERT INTO "vector_store_files" VALUES('vs_f683a8f7534086f5888730cc','file-b92700af42f642af42cf71d8','completed',NULL,NULL,'{}','{"max_chunk_size_tokens":200,"chunk_overlap_tokens":40}',NULL,799,1.79589990332626938e+09,NULL,1);
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
	PRIMARY KEY (store_id)
);
INSERT INTO "vector_stores" VALUES('vs_f683a8f7534086f5888730cc','','notes',NULL,'{}',1.7958999033138163e+09,1.79589990332626938e+09,NULL,'c00be20204963a7d8e2f11b90de414c1');
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_session ON decisions (session_id, at);
CREATE INDEX feedback_key ON feedback (key_id, at);
CREATE INDEX document_feedback_key ON document_feedback (key_id, at);
CREATE INDEX retrieval_files_owner ON retrieval_files (owner, created_at);
CREATE INDEX vector_stores_owner ON vector_stores (owner, created_at);
CREATE INDEX vector_store_files_status ON vector_store_files (status);
CREATE INDEX vector_store_files_file ON vector_store_files (file_id);
CREATE INDEX vector_store_batches_store ON vector_store_batches (store_id);
CREATE INDEX retrieval_chunks_file ON retrieval_chunks (store_id, file_id, position);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('retrieval_chunks',1);
COMMIT;
