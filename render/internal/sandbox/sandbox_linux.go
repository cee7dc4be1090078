package sandbox

import (
	"errors"
	"os"
	"runtime"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// Available reports whether this system can lock a process in.
const Available = true

// cpuSeconds ends a process whose parent was killed and can no longer end it.
const cpuSeconds = 600

// Enter locks the process in, all its threads, for good. After it the process can compute,
// and read and write the descriptors that it has; nothing else. It needs no privilege.
func Enter() error {
	// no_new_privs belongs to a thread; the filter hands it to the others, so both come from one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return &Error{"no_new_privs", err}
	}
	// Nobody of the same user may read the keys out of this memory, and no core may hold them.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return &Error{"dumpable", err}
	}
	for _, l := range []struct {
		step     string
		resource int
		max      uint64
	}{
		{"limit of written files", unix.RLIMIT_FSIZE, 0},
		{"limit of core dumps", unix.RLIMIT_CORE, 0},
		{"limit of descriptors", unix.RLIMIT_NOFILE, 32},
		{"limit of CPU time", unix.RLIMIT_CPU, cpuSeconds},
	} {
		if err := lower(l.resource, l.max); err != nil {
			return &Error{l.step, err}
		}
	}
	if err := seccomp.LoadFilter(filter()); err != nil {
		return &Error{"seccomp filter", err}
	}
	// Where a thread cannot be brought under the filter the kernel answers with that thread's number
	// and sets no filter at all, which looks like success: so ask for what it must refuse.
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, unix.EPERM) {
		if err == nil {
			unix.Close(fd)
		}
		return &Error{"seccomp filter", errors.New("it is not in force")}
	}
	return nil
}

// lower sets a limit, never above the one that is there.
func lower(resource int, limit uint64) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(resource, &have); err != nil {
		return err
	}
	limit = min(limit, have.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}

// allowed is what Go's runtime, with or without cgo and the race detector, asks of the kernel once
// a program runs. Everything else answers EPERM: above all opening files, sockets and programs.
var allowed = []string{
	// memory
	"brk", "madvise", "mincore", "mremap", "munmap",
	// threads
	"exit", "exit_group", "futex", "getpid", "gettid", "rseq", "sched_getaffinity", "sched_yield", "set_robust_list",
	// signals between them (preemption)
	"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	// time and chance
	"clock_gettime", "clock_nanosleep", "getrandom", "gettimeofday", "nanosleep",
	// the descriptors that are open
	"close", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "fcntl", "fstat", "poll", "ppoll", "pread64",
	"read", "readv", "write", "writev",
}

func filter() seccomp.Filter {
	allow := seccomp.SyscallGroup{Action: seccomp.ActionAllow, Names: known(allowed)}
	where := func(name string, argument uint32, op seccomp.Operation, value uint64) {
		allow.NamesWithCondtions = append(allow.NamesWithCondtions, seccomp.NameWithConditions{
			Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: op, Value: value}},
		})
	}
	where("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD) // a thread, never a process
	where("tgkill", 0, seccomp.Equal, uint64(os.Getpid()))
	where("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC)
	where("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC)
	where("prctl", 0, seccomp.Equal, unix.PR_SET_VMA) // names of memory areas
	return seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{
				allow,
				// The flags of clone3 lie in memory, where a filter cannot look; C libraries fall back to clone.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: known([]string{"clone3"})},
			},
		},
	}
}

// known leaves out what this processor's table of system calls does not have.
func known(names []string) []string {
	info, err := arch.GetInfo("")
	if err != nil {
		return names // LoadFilter says the same, as an error
	}
	var out []string
	for _, name := range names {
		if _, ok := info.SyscallNames[name]; ok {
			out = append(out, name)
		}
	}
	return out
}
