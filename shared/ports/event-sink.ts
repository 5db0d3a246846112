/** What a watcher wants to know, as it happens: `events.jsonl` of a run, progress lines, later the dashboard. */
export interface RunEvent {
  /** E.g. `round-announced`. Names are stable; members may be added. */
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface EventSink {
  emit(event: RunEvent): void;
}

export const noEvents: EventSink = { emit() {} };
