package render

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// residentBytes is what a process holds in memory, now and at its peak; 0 if it has ended. The peak is read from the
// process itself: the one that the kernel gives to who waits for it counts the parent's memory before exec as well.
func residentBytes(pid int) (now, peak int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak
}
