/* SPDX-License-Identifier: MIT */
/* doctor_machine.c - see doctor.h. What can be tried is tried, not looked up. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/uapi.h"
#include "server/device/ctrl.h"
#include "server/device/features.h"
#include "doctor.h"
#include "output.h"

#define CONTROL "/dev/ublk-control"
#define HUGE_PAGE (2UL << 20)
#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define SHIM_PAGE 4096L	    /* bytes: what libublkzc.so knows */
#define SHIM_MIN_NOFILE 44U /* docs/environment.md */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* ---- the kernel, and where in it we are ---- */

/* The first namespaces of a kernel have fixed numbers: include/linux/proc_ns.h. */
static bool is_first(const char *kind, const char *number)
{
	char path[64], link[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return true;
	link[len] = '\0';
	return strstr(link, number) != NULL;
}

static void place(struct doctor *d)
{
	bool pids = !is_first("pid", "4026531836");
	bool users = !is_first("user", "4026531837");

	d->contained = pids || users;
	if (!d->contained)
		return;
	doctor_say(d, "place", GRADE_NOTE,
		   "in a container%s%s%s: a client needs the device, /run/ublkzc and /sys in here; "
		   "servers belong outside",
		   users ? ", with users of its own" : "", users && pids ? " and" : "",
		   pids ? " with processes of its own" : "");
}

static void kernel(struct doctor *d)
{
	struct utsname u;
	long page = sysconf(_SC_PAGESIZE);

	uname(&u);
	if (page == SHIM_PAGE) {
		doctor_say(d, "kernel", GRADE_OK, "Linux %.60s on %.20s", u.release, u.machine);
		return;
	}
	finding_next(doctor_say(d, "kernel", GRADE_BAD,
				"Linux %.60s on %.20s has pages of %ld bytes; libublkzc.so knows "
				"4096 only, and stays off",
				u.release, u.machine, page),
		     "boot a kernel with pages of 4 KiB; everything is served by copy until then");
}

/* ---- the driver ---- */

static bool file_mentions(const char *path, const char *word)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (f && !found && getline(&line, &size, f) >= 0)
		found = strstr(line, word) != NULL;
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* Not loaded: can it be? */
static void no_driver(struct doctor *d)
{
	struct finding *f;
	struct utsname u;
	char path[256];

	uname(&u);
	if (access("/sys/module/ublk_drv", F_OK) == 0) {
		f = doctor_say(d, "driver", d->contained ? GRADE_NOTE : GRADE_BAD,
			       "loaded, but " CONTROL " is not here: no server can start");
		finding_next(f, "start servers outside of the container, or mount a /dev with it");
		return;
	}
	snprintf(path, sizeof(path), "/lib/modules/%.100s/modules.dep", u.release);
	if (file_mentions(path, "/ublk_drv.ko")) {
		f = doctor_say(d, "driver", GRADE_BAD, "ublk_drv is installed, but not loaded");
		finding_next(f, "modprobe ublk_drv");
		return;
	}
	f = doctor_say(d, "driver", GRADE_BAD, "this kernel, %.100s, has no ublk_drv", u.release);
	finding_next(f, "apt-get install linux-image-6.12-amd64 ublkzc-dkms (or boot Linux 7.1 or "
			"newer, where nothing else is needed)");
}

/* "6.12", "7.3": kernel-patch/ has a driver for them. */
static bool have_driver_for(const char *release)
{
	return strncmp(release, "6.12.", 5) == 0 || strncmp(release, "7.3.", 4) == 0;
}

static void say_features(struct doctor *d, uint64_t features, const char *driver)
{
	struct finding *f;
	struct utsname u;

	if (features & UBLK_F_SHMEM_ZC) {
		doctor_say(d, "driver", GRADE_OK, "%s has shared-memory zero copy%s", driver,
			   features & UAPI_F_SHMEM_SEGS ? ", also of scattered requests" : "");
		return;
	}
	uname(&u);
	if (!(features & UBLK_F_USER_COPY)) {
		f = doctor_say(d, "driver", GRADE_BAD,
			       "%s is too old: without UBLK_F_USER_COPY no server runs", driver);
		finding_next(f, "boot Linux 6.12 with ublkzc-dkms, or 7.1 or newer");
		return;
	}
	f = doctor_say(d, "driver", GRADE_BAD,
		       "%s has no shared-memory zero copy: devices work, all is copied", driver);
	if (have_driver_for(u.release))
		finding_next(f,
			     "apt-get install ublkzc-dkms, then, without devices: rmmod ublk_drv; "
			     "modprobe ublk_drv");
	else
		finding_next(f, "boot Linux 7.1 or newer, or 6.12 with ublkzc-dkms");
}

/* Servers tell in their state whether they have it: doctor_devices(). */
static void may_not_ask(struct doctor *d, const char *driver)
{
	doctor_say(d, "driver", GRADE_NOTE, "%s; only the machine's root may ask what it can",
		   driver);
}

static void driver(struct doctor *d)
{
	char text[160], version[64];
	uint64_t features = 0;
	struct ctrl ctrl;
	struct utsname u;
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);
	int ret = fd < 0 ? -errno : 0;

	uname(&u);
	driver_version(version, sizeof(version));
	driver_describe(text, sizeof(text), version, u.release);
	if (ret == -EACCES || ret == -EPERM) {
		may_not_ask(d, text);
		return;
	}
	if (ret) {
		no_driver(d);
		return;
	}
	close(fd);
	if (ctrl_open(&ctrl))
		return; /* io_uring: said by uring() */
	ret = ctrl_get_features(&ctrl, &features);
	ctrl_close(&ctrl);
	/* The root of a container may open it, but not ask; a driver before 6.5 has no answer. */
	if (ret == -EPERM || ret == -EACCES)
		may_not_ask(d, text);
	else
		say_features(d, ret ? 0 : features, text);
}

/* ---- what a server needs ---- */

static void uring(struct doctor *d)
{
	struct io_uring ring;
	struct finding *f;
	int ret = io_uring_queue_init(4, &ring, 0);

	if (!ret) {
		io_uring_queue_exit(&ring);
		doctor_say(d, "io_uring", GRADE_OK, "works");
		return;
	}
	f = doctor_say(d, "io_uring", d->contained || geteuid() ? GRADE_NOTE : GRADE_BAD,
		       "refused to this user: %s%s; servers need it, clients do not",
		       strerror(-ret),
		       access("/proc/sys/kernel/io_uring_disabled", F_OK) == 0 && ret == -EPERM
			       ? " (sysctl kernel.io_uring_disabled, or a seccomp filter)"
			       : "");
	if (!d->contained && !geteuid())
		finding_next(f, "sysctl -w kernel.io_uring_disabled=0");
}

/* ---- what a client needs ---- */

/* Whether it is a huge page as soon as it is touched. */
static bool is_huge_at_once(char *page)
{
	unsigned char there = 0;

	madvise(page, HUGE_PAGE, MADV_HUGEPAGE);
	page[0] = 1;
	return mincore(page + HUGE_PAGE / 2, 1, &there) == 0 && (there & 1);
}

/* One huge page of a memfd, as an arena has them.  0, or an errno. */
static int try_huge(int fd, bool *at_once)
{
	char *map = mmap(NULL, 2 * HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page;
	int err = 0;

	if (map == MAP_FAILED)
		return errno;
	page = (char *)(((uintptr_t)map + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (mmap(page, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		err = errno;
	} else {
		*at_once = is_huge_at_once(page);
		if (madvise(page, HUGE_PAGE, MADV_COLLAPSE) < 0)
			err = errno;
	}
	munmap(map, 2 * HUGE_PAGE);
	return err;
}

static void memory(struct doctor *d)
{
	int fd = memfd_create("ublkzc-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct finding *f;
	bool at_once = false;
	int err;

	if (fd < 0 || ftruncate(fd, HUGE_PAGE) < 0) {
		f = doctor_say(d, "memory", GRADE_BAD, "no memory can be shared (memfd_create): %s",
			       strerror(errno));
		finding_next(f,
			     "allow memfd_create and files of 2 MiB here (seccomp, RLIMIT_FSIZE)");
	} else if ((err = try_huge(fd, &at_once))) {
		doctor_say(d, "memory", GRADE_NOTE,
			   "can be shared; without huge pages (MADV_COLLAPSE: %s), large requests "
			   "are slower",
			   strerror(err));
	} else if (!at_once) {
		f = doctor_say(d, "memory", GRADE_NOTE,
			       "can be shared; beyond the first megabytes not in huge pages "
			       "(" SHMEM_ENABLED "): large requests are slower");
		finding_next(f, "echo advise > " SHMEM_ENABLED);
	} else {
		doctor_say(d, "memory", GRADE_OK, "can be shared, and in huge pages");
	}
	if (fd >= 0)
		close(fd);
}

static void limit(struct doctor *d, int resource, const char *name, const char *option)
{
	struct rlimit limit;
	char size[OUTPUT_SIZE];

	if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	finding_next(doctor_say(d, "limits", GRADE_BAD, "%s is %s: libublkzc.so captures nothing",
				name, size_text(size, limit.rlim_cur, false)),
		     "ulimit -S%s unlimited, or what set it", option);
}

static bool memory_is_counted(void)
{
	FILE *f = fopen("/proc/sys/vm/overcommit_memory", "re");
	bool counted = f && getc(f) == '2';

	if (f)
		fclose(f);
	return counted;
}

static void limits(struct doctor *d)
{
	unsigned int before = d->nr;
	struct rlimit files = { 0 };

	limit(d, RLIMIT_AS, "RLIMIT_AS", "v");
	limit(d, RLIMIT_FSIZE, "RLIMIT_FSIZE", "f");
	if (memory_is_counted())
		finding_next(doctor_say(d, "limits", GRADE_BAD,
					"vm.overcommit_memory is 2: libublkzc.so captures nothing"),
			     "sysctl vm.overcommit_memory=0, or ublkzc attach --pid PID for what "
			     "a program shares itself");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur <= SHIM_MIN_NOFILE)
		finding_next(doctor_say(d, "limits", GRADE_BAD,
					"RLIMIT_NOFILE is %llu: libublkzc.so finds no descriptor",
					(unsigned long long)files.rlim_cur),
			     "ulimit -Sn 1024");
	if (d->nr == before)
		doctor_say(d, "limits", GRADE_OK,
			   "none that matters (RLIMIT_MEMLOCK does not: the server pins)");
	if (access("/sys/dev/block", F_OK) < 0)
		finding_next(doctor_say(d, "sysfs", GRADE_BAD,
					"/sys is not mounted: no file's disk can be found"),
			     "mount -t sysfs sysfs /sys");
}

void doctor_machine(struct doctor *d)
{
	kernel(d);
	place(d);
	uring(d);
	driver(d);
	memory(d);
	limits(d);
}
