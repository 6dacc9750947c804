/** The whole page: sign-in or the work, and what is read out. */
import { useEffect } from "preact/hooks";
import { pageTitle, unseen } from "../live/attend";
import * as app from "../state/app";
import { route } from "../state/route";
import { Board, work } from "./board";
import { ConversationsView } from "./conversations";
import { ConversationView, UtteranceView } from "./conversation";
import { MigrationView } from "./migration";
import { OperationView } from "./operation";
import { OperationsView } from "./operations";
import { PromptsView } from "./prompts";
import { ModelView } from "./usage";
import { SearchResults } from "./search";
import { ShiftView } from "./shift";
import { SignIn } from "./signin";
import { Now } from "./now";
import { Top } from "./top";

function Notices() {
  return (
    <div class="notices" role="alert" data-testid="notices">
      {app.notices.value.map((notice) => (
        <p key={notice.id} data-testid="notice">
          {notice.text}
          <button type="button" aria-label="Dismiss" onClick={() => app.dismiss(notice.id)}>
            ×
          </button>
        </p>
      ))}
    </div>
  );
}

function Announcements() {
  return (
    <>
      <p class="visually-hidden" aria-live="assertive" aria-atomic="true" data-testid="announce">
        {app.alertText.value}
      </p>
      <p class="visually-hidden" aria-live="polite" aria-atomic="true">
        {app.politeText.value}
      </p>
    </>
  );
}

function View() {
  const { view, id, query } = route.value;
  if (view === "conversations") return <ConversationsView />;
  if (view === "conversation") return <ConversationView key={id} id={id} />;
  if (view === "utterance") return <UtteranceView key={id} id={id} />;
  if (view === "prompts") return <PromptsView />;
  if (view === "operations") return <OperationsView />;
  if (view === "operation") return <OperationView key={id} id={id} />;
  if (view === "migration") return <MigrationView />;
  if (view === "shift") return <ShiftView />;
  if (view === "model") return <ModelView />;
  return query === "" ? <Board /> : <SearchResults />;
}

function Page() {
  const load = work.value.get("") ?? { open: 0, critical: 0 };
  const site = app.session.value?.site;
  const title = pageTitle(unseen.value.length, load.critical, load.open, site ?? "");
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")?.focus();
      }}>
        Skip to the cards
      </a>
      <div class="head">
        <Top critical={load.critical} open={load.open} />
        <Now />
      </div>
      <main id="main" tabIndex={-1}>
        <View />
      </main>
    </>
  );
}

export function App() {
  const access = app.access.value;
  return (
    <>
      {access === "checking" && <p class="splash" role="status">Opening QuickComm …</p>}
      {access === "unreachable" && (
        <p class="splash" role="alert" data-testid="unreachable">
          The server cannot be reached. Trying again …
        </p>
      )}
      {access === "out" && <SignIn />}
      {access === "in" && <Page />}
      <Notices />
      <Announcements />
    </>
  );
}
