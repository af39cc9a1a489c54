package kubelet

import "syscall"

// processGroup makes a process the leader of a group, and lets it end with this program even if that is killed.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
