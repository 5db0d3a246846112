/** The wire protocol that this code speaks; docs/protocol.md section 17 has the history. */
export const protocolVersion = 'fdp/1';
