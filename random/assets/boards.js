window.affectbenchBoards={};
