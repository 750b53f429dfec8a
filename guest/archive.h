/* The POSIX tar format (pax interchange format, IEEE Std 1003.1, pax, "EXTENDED DESCRIPTION"). */
#ifndef BASTIDE_ARCHIVE_H
#define BASTIDE_ARCHIVE_H

#define BLOCK 512
#define XATTR_PREFIX "SCHILY.xattr."

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};

#endif
