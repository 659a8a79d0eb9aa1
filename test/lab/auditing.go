package lab

import (
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/audit"
)

// Audit is everything the API server was asked so far, in the order of its
// answers; filters narrow it down.
func (c *Cluster) Audit(filters ...audit.Filter) (audit.Events, error) {
	events, _, err := audit.Read(c.auditLog(), 0)
	return events.Where(filters...), err
}

// AuditMark is a place in the audit log.
type AuditMark int64

// MarkAudit is the present end of the audit log, for AuditSince.
func (c *Cluster) MarkAudit() (AuditMark, error) {
	end, err := audit.End(c.auditLog())
	return AuditMark(end), err
}

// AuditSince is what the API server was asked after a mark.
func (c *Cluster) AuditSince(mark AuditMark, filters ...audit.Filter) (audit.Events, error) {
	events, _, err := audit.Read(c.auditLog(), int64(mark))
	return events.Where(filters...), err
}
