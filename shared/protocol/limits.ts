/** docs/protocol.md section 14. Sizes in bytes, times in milliseconds. */

/** One Socket.IO message to the coordinator; a larger one closes the connection, so matrices are cut into chunks. */
export const maxMessageBytes = 1024 * 1024;
/** Characters of one signed document, the only large thing that a coordinator sends: the indices of a query and of labels, each of `maxQueryRows`, and room. */
export const maxDocumentLength = 12 * 1024 * 1024;
/** One chunk of an upload; small, because heartbeats share the connection. */
export const maxChunkBytes = 256 * 1024;
/** One sealed envelope. */
export const maxEnvelopeBytes = 64 * 1024 * 1024;
/** One message that opens a stage of secure aggregation: a roster of 40,000 clients, or as many shares and signatures. */
export const maxStageBytes = 10 * 1024 * 1024;
/** One matrix frame from the coordinator. */
export const maxFrameBytes = 1024 * 1024 * 1024;
/** Transfer examples in one query. */
export const maxQueryRows = 1_000_000;
/** Events on one connection: refill rate and burst. */
export const maxEventsPerSecond = 200;
export const maxEventBurst = 400;
/** From connecting to having joined. */
export const joinDeadlineMs = 15_000;
/** For one acknowledgement. */
export const ackDeadlineMs = 20_000;
export const pingIntervalMs = 10_000;
export const pingTimeoutMs = 20_000;
