// Package harm reads the API server's audit log and says what harm the operator
// did to KubeVirt: a write outside the places it may write to, anything but our
// own words changed on a VMI or VMIM, a condition of KubeVirt's that changed
// without KubeVirt asking for it, a guard of virt-controller's that failed
// because of us. It is pure: the log goes in, a Report comes out.
package harm
