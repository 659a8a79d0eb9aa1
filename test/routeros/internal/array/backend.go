package array

// EventKind says what happened to a file or an export.
type EventKind string

// The events a Backend is told.
const (
	ExportOn     EventKind = "export-on"
	ExportOff    EventKind = "export-off"
	ExportChange EventKind = "export-change" // NQN, port, allowed host or password, while on
	ExportResize EventKind = "export-resize" // the namespace has a new size, while on
	FileCreate   EventKind = "file-create"
	FileResize   EventKind = "file-resize"
	FileCopy     EventKind = "file-copy"
	FileRemove   EventKind = "file-remove"
	FileRename   EventKind = "file-rename"
)

// Event is one change a Backend may carry out for real.
type Event struct {
	Kind EventKind
	// File is the name in /file, without a leading slash.
	File string
	// From is the source of a copy or rename.
	From string
	// Size in bytes.
	Size int64
	// Slot and the rest are set for exports.
	Slot, NQN           string
	Port                int
	AllowHost, Password string
}

// Backend does for real what the array's state says, for instance with a
// kernel's nvmet. It is called in order, one call at a time, before the change
// is visible, with the array locked: it must not call the server. An error
// refuses the change with its text.
type Backend interface {
	Apply(Event) error
}

type noBackend struct{}

func (noBackend) Apply(Event) error { return nil }
