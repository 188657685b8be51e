package maildir

import "dewey/maildrop"

// DiskNames and ModifiedUTF7 make the names of folders.
var (
	DiskNames    = diskNames
	ModifiedUTF7 = modifiedUTF7
)

// Boxes are the paths of an owner's Maildirs, and their names.
func (s *Store) Boxes(owner maildrop.Owner) (roots, names []string, err error) {
	boxes, err := s.boxes(owner)
	defer unbindAll(boxes)
	for _, b := range boxes {
		roots, names = append(roots, b.root), append(names, b.name)
	}
	return roots, names, err
}
