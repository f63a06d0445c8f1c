package hashfetch

// Wants reports whether t is being fetched.
func (f *Fetcher) Wants(t Target) bool { return f.wants[t] != nil }
