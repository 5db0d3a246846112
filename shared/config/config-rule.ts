/** A rule between keys of a configuration. */
export interface ConfigRule<T> {
  /** Every key the rule looks at, e.g. `schedule.quorum`. It is not applied when one of them is invalid by itself. */
  readonly reads: readonly string[];
  /** Sections that are invalid are missing from `config`. Returns the mistake, if there is one. */
  check(config: Partial<T>): { readonly path: string; readonly expected: string; readonly got: string; readonly hint?: string } | undefined;
}
