/* SPDX-License-Identifier: MIT */
/* rescue.c - see rescue.h.  Runs in a signal handler, on any thread that touches memory. */
#include "rescue.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static struct registry *the_registry;

/*
 * The whole mapping goes, and not a page: it can be of huge pages, and a client that takes one
 * page away takes more.  Nothing is allocated for what is not touched.
 */
static bool put_memory_there(const struct buffer_view *view)
{
	void *at = mmap(view->base, view->len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		return false;
	munlock(at, view->len);
	return true;
}

/* Is there memory at @address, perhaps because another thread's handler has just put it there? */
static bool is_there(uint8_t *address)
{
	char byte;
	struct iovec local = { &byte, 1 };
	struct iovec remote = { address, 1 };

	registry_wait(the_registry);
	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

/*
 * In this order: whoever finds the mapping has asked for the count before, and whoever sees
 * private memory ends after the count went up.
 */
static bool exchange(struct registry *r, unsigned int index, const struct buffer_view *view)
{
	registry_withdraw(r, index);
	atomic_fetch_add_explicit(&r->rescues, 1, memory_order_acq_rel);
	registry_ring(r);
	return put_memory_there(view);
}

static bool exchange_at(struct registry *r, const uint8_t *address)
{
	struct buffer_view view;

	for (unsigned int i = 0; i <= UAPI_SHMEM_BUF_INDEX_MAX; i++)
		if (registry_view(r, i, &view) && address >= view.base &&
		    address < view.base + view.len)
			return exchange(r, i, &view);
	return false;
}

static bool rescue(uint8_t *address)
{
	bool done;

	atomic_fetch_add(&the_registry->rescuers, 1);
	done = exchange_at(the_registry, address);
	atomic_fetch_sub(&the_registry->rescuers, 1);
	return done || is_there(address);
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)context;
	if (info->si_code <= 0 || !rescue(info->si_addr)) {
		/* As if we had never been: a fault comes again, and what was sent is sent again. */
		signal(signal_number, SIG_DFL);
		if (info->si_code <= 0)
			raise(signal_number);
	}
	errno = saved;
}

int rescue_open(struct registry *r)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	the_registry = r;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}
