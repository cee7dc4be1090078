package health

// Compare says which of two verdicts on one object is the worse one: it is negative if the object is better now than at the
// baseline, 0 if it is as it was, positive if it is worse. Reasons do not count: a container that crashes is seen
// backing off at one moment and running at the next.
//
// What was ill at the baseline, was not changed by the release and is not worse now should only warn.
func Compare(baseline, now Verdict) int { return illness[now.State] - illness[baseline.State] }

var illness = map[State]int{Healthy: 0, Progressing: 1, Failed: 2, Missing: 3}
